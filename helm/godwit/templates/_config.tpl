{{/* One line of TOML for each setting below a map: (dict "at" "routing" "value" map). Dotted keys, so that no table is open.
JSON's texts, numbers and lists are TOML's too. */}}
{{- define "godwit.toml" -}}
{{- $at := .at -}}
{{- range $key, $value := .value }}
{{- $name := ternary $key (printf "%s.%s" $at $key) (empty $at) }}
{{- if kindIs "map" $value }}
{{- include "godwit.toml" (dict "at" $name "value" $value) }}
{{- else }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* The settings' file: what the chart knows, over which `settings` cannot go, for the schema does not let it name those. */}}
{{- define "godwit.config" -}}
{{- $values := .Values -}}
{{- $regions := dict -}}
{{- range $name, $region := $values.regions -}}
{{- $facts := dict "internal_url" $region.internalUrl "public_url" $region.publicUrl -}}
{{- with $region.replication }}{{ $_ := set $facts "replication" . }}{{ end -}}
{{- if ne $values.failover.control "postgres" -}}
{{- $_ := set $facts "database" (include "godwit.database" (dict "root" $ "region" $name)) -}}
{{- end -}}
{{- $_ := set $regions $name $facts -}}
{{- end -}}
{{- $cluster := dict "envelope_key_current" $values.secrets.envelopeKeys.current -}}
{{- $server := dict
    "public_addr" (printf "%s:8081" $values.bind)
    "internal_addr" (printf "%s:9081" $values.bind)
    "ops_addr" (printf "%s:9181" $values.bind) -}}
{{- if $values.internal.tls.enabled -}}
{{- $at := "/etc/godwit/internal-tls" -}}
{{- $_ := set $cluster "peer_tls" (dict "identity" (printf "%s/tls-combined.pem" $at) "authority" (printf "%s/ca.crt" $at)) -}}
{{- $_ := set $server "internal_tls" (dict
    "certificate" (printf "%s/tls.crt" $at) "key" (printf "%s/tls.key" $at) "authority" (printf "%s/ca.crt" $at)) -}}
{{- end -}}
{{- $identity := dict -}}
{{- with $values.secrets.passwordPeppers.current }}{{ $_ := set $identity "password" (dict "pepper_current" .) }}{{ end -}}
{{- with $values.secrets.macKeys.current }}{{ $_ := set $identity "session" (dict "mac_key_current" .) }}{{ end -}}
{{- $failover := dict -}}
{{- if ne $values.failover.control "postgres" }}{{ $_ := set $failover "control" $values.failover.control }}{{ end -}}
{{- with $values.failover.globalDatabase }}{{ $_ := set $failover "global_database" . }}{{ end -}}
{{- $own := dict "region" $values.region "regions" $regions "cluster" $cluster "server" $server "identity" $identity "failover" $failover -}}
{{- include "godwit.toml" (dict "at" "" "value" (mustMergeOverwrite (deepCopy $values.settings) $own)) | trim }}
{{ end }}
