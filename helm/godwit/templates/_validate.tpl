{{/* What values.schema.json cannot say, because it compares one value with another. Each refusal says what to do. */}}
{{- define "godwit.validate" -}}
{{- $values := .Values -}}
{{- $names := keys $values.regions | sortAlpha -}}
{{- range $key := list "region" "primaryRegion" -}}
{{- if not (has (get $values $key) $names) -}}
{{- fail (printf "%s: %s is not one of regions (%s)" $key (get $values $key) (join ", " $names)) -}}
{{- end -}}
{{- end -}}

{{- include "godwit.validate.control" . -}}

{{- $shares := 0 -}}
{{- range $values.regions }}{{ $shares = add $shares (int .share) }}{{ end -}}
{{- if ne (int $shares) 100 -}}
{{- fail (printf "regions: the shares come to %d percent, not 100" (int $shares)) -}}
{{- end -}}
{{- $scheme := ternary "https" "http" $values.internal.tls.enabled -}}
{{- range $name, $region := $values.regions -}}
{{- if ne (urlParse $region.internalUrl).scheme $scheme -}}
{{- fail (printf "regions.%s.internalUrl: must begin with %s:// as internal.tls.enabled is %t" $name $scheme $values.internal.tls.enabled) -}}
{{- end -}}
{{- if and $values.secrets.databaseControlUrl.secretName (eq $values.failover.control "postgres") (not $region.replication) -}}
{{- fail (printf "regions.%s.replication: is missing, and without it nobody can be told to follow that region: set it, or leave secrets.databaseControlUrl.secretName empty" $name) -}}
{{- end -}}
{{- if and (eq $values.database.mode "cloudnativepg") (not (get $values.cloudnativepg.hosts $name)) -}}
{{- fail (printf "cloudnativepg.hosts.%s: is missing: under which host do the other regions reach its Postgres?" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.database.mode "cloudnativepg") (not (has $values.cloudnativepg.bootstrapFrom $names)) -}}
{{- fail (printf "cloudnativepg.bootstrapFrom: %s is not one of regions (%s)" $values.cloudnativepg.bootstrapFrom (join ", " $names)) -}}
{{- end -}}
{{- range $name, $_ := $values.cloudnativepg.backup.archives -}}
{{- if not (has $name $names) -}}
{{- fail (printf "cloudnativepg.backup.archives: %s is not one of regions (%s)" $name (join ", " $names)) -}}
{{- end -}}
{{- end -}}

{{- range $ring := list "envelopeKeys" "passwordPeppers" "macKeys" -}}
{{- with get $values.secrets $ring -}}
{{- if and .current (not (hasKey .keys .current)) -}}
{{- fail (printf "secrets.%s.current: %s is not one of its keys" $ring .current) -}}
{{- end -}}
{{- if and .keys (not .current) (eq $ring "macKeys") -}}
{{- fail (printf "secrets.%s.current: is missing: with which of its keys are tokens signed?" $ring) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $stopping := add $values.preStopSleepSeconds (include "godwit.drainSeconds" . | int) -}}
{{- /* A process that has drained still ends its loops and sends its last traces. */ -}}
{{- if lt (int $values.terminationGracePeriodSeconds) (add 5 $stopping | int) -}}
{{- fail (printf "terminationGracePeriodSeconds: must be %d at least: preStopSleepSeconds, server.drain_seconds_max and 5 to end" (add 5 $stopping)) -}}
{{- end -}}

{{- if not (dig "server" "workers" 0 $values.settings) -}}
{{- fail "settings.server.workers: must be a number of threads: 0 is one for each of the node's cores, and each holds connections to Postgres" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (not (dig "requests" "cpu" "" $values.resources)) -}}
{{- fail "resources.requests.cpu: is missing, and autoscaling goes by its share" -}}
{{- end -}}
{{- if $values.autoscaling.enabled -}}
{{- $bounds := include "godwit.bounds" . | fromYaml -}}
{{- $capacity := include "godwit.capacity" (dict "root" . "region" $values.region) | fromYaml -}}
{{- if gt (int $bounds.min) (int $bounds.max) -}}
{{- fail (printf "autoscaling: minReplicas is %d, more than maxReplicas, %d" (int $bounds.min) (int $bounds.max)) -}}
{{- end -}}
{{- if lt (int $bounds.max) (int $capacity.evacuated) -}}
{{- fail (printf "autoscaling.maxReplicas: is %d, and %d are needed to take over the largest other region's requests" (int $bounds.max) (int $capacity.evacuated)) -}}
{{- end -}}
{{- end -}}

{{- if and $values.networkPolicy.enabled (dig "telemetry" "otlp_endpoint" "" $values.settings) (not $values.networkPolicy.otlp) -}}
{{- fail "networkPolicy.otlp: is empty, and would keep traces from settings.telemetry.otlp_endpoint: list where that is" -}}
{{- end -}}
{{- end }}
