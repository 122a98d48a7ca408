{{/*
The name of all that is one of its kind. A region has one release, so it is the release's. Every template asks for it first, so
that whichever is first refuses values that make no sense.
*/}}
{{- define "godwit.name" -}}
{{- include "godwit.validate" . -}}
{{- include "godwit.release" . -}}
{{- end }}

{{- define "godwit.release" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "godwit.role" -}}
{{- if eq .Values.region .Values.primaryRegion }}primary{{ else }}secondary{{ end -}}
{{- end }}

{{/* What picks out the pods of one component; never changes, because a Deployment's selector cannot. */}}
{{- define "godwit.selector" -}}
app.kubernetes.io/name: godwit
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The labels of an object: (dict "root" $ "component" "api"). */}}
{{- define "godwit.labels" -}}
{{ include "godwit.selector" (dict "Release" .root.Release "component" .component) }}
app.kubernetes.io/part-of: godwit
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "godwit.image" -}}
{{- $image := .Values.image -}}
{{- $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/* Above `server.drain_seconds_max` (docs/SETTINGS.md). */}}
{{- define "godwit.drainSeconds" -}}
{{- dig "server" "drain_seconds_max" 20 .Values.settings | int -}}
{{- end }}

{{/*
The annotations of every pod of ours. The settings' file is one of them, and mounted from there: it belongs to the pod's template, so that
the pods of another version, those begun anew in the middle of a rollout, and those that a rollback brings back have the settings they
came with. (Of a ConfigMap for each content Helm either deletes the old one while pods need it, or, told to keep it, cannot roll back
to it: helm/helm#8228.)
*/}}
{{- define "godwit.annotations" -}}
godwit/settings: |
  {{- include "godwit.config" . | nindent 2 }}
{{- with .Values.secrets.revision }}
checksum/secrets: {{ . | sha256sum }}
{{- end }}
{{- end }}

{{/* Whether an optional kind is rendered: (dict "root" $ "mode" "auto" "api" "group/version"). */}}
{{- define "godwit.wants" -}}
{{- if or (eq .mode "always") (and (eq .mode "auto") (.root.Capabilities.APIVersions.Has .api)) }}true{{ end -}}
{{- end }}

{{/* The port of an URL, its scheme's where it names none. */}}
{{- define "godwit.port" -}}
{{- $url := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $named | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}

{{/*
The files that secrets are mounted as: (dict "root" $ "owner" true "control" true). Each is named like its setting, which
`..._FILE` leads to it.
*/}}
{{- define "godwit.secretFiles" -}}
{{- $secrets := .root.Values.secrets -}}
{{- $files := dict "database.url" $secrets.databaseUrl "database.read_url" $secrets.databaseReadUrl "redis.url" $secrets.redisUrl -}}
{{- if .owner }}{{ $_ := set $files "database.owner_url" $secrets.databaseOwnerUrl }}{{ end -}}
{{- if and .control $secrets.databaseControlUrl.secretName }}{{ $_ := set $files "database.control_url" $secrets.databaseControlUrl }}{{ end -}}
{{- range $name, $ref := $secrets.envelopeKeys.keys }}{{ $_ := set $files (printf "cluster.envelope_keys.%s.secret" $name) $ref }}{{ end -}}
{{- range $name, $ref := $secrets.passwordPeppers.keys }}{{ $_ := set $files (printf "identity.password.peppers.%s.secret" $name) $ref }}{{ end -}}
{{- range $name, $ref := $secrets.macKeys.keys }}{{ $_ := set $files (printf "identity.session.mac_keys.%s.secret" $name) $ref }}{{ end -}}
{{- toYaml $files -}}
{{- end }}

{{- define "godwit.secretEnv" -}}
{{- range $setting, $ref := include "godwit.secretFiles" . | fromYaml }}
- name: GODWIT__{{ $setting | replace "." "__" | upper }}_FILE
  value: /etc/godwit/secrets/{{ $setting }}
{{- end }}
{{- end }}

{{/* What every container of ours mounts; "tls" besides: whether it speaks to the regions. */}}
{{- define "godwit.mounts" -}}
- name: config
  mountPath: /etc/godwit/godwit.toml
  subPath: godwit.toml
  readOnly: true
- name: secrets
  mountPath: /etc/godwit/secrets
  readOnly: true
{{- if and .tls .root.Values.internal.tls.enabled }}
- name: internal-tls
  mountPath: /etc/godwit/internal-tls
  readOnly: true
{{- end }}
{{- if .root.Values.database.authority.secretName }}
- name: authorities
  mountPath: /etc/godwit/authorities
  readOnly: true
{{- end }}
{{- /* The one place that can be written to: `godwit rejoin --ledger /tmp/...`. */}}
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "godwit.volumes" -}}
- name: config
  downwardAPI:
    items:
      - path: godwit.toml
        fieldRef:
          fieldPath: metadata.annotations['godwit/settings']
- name: secrets
  projected:
    # The user of the container reads them by its group.
    defaultMode: 0440
    sources:
      {{- range $setting, $ref := include "godwit.secretFiles" . | fromYaml }}
      - secret:
          name: {{ $ref.secretName }}
          items:
            - key: {{ $ref.key }}
              path: {{ $setting }}
      {{- end }}
{{- if and .tls .root.Values.internal.tls.enabled }}
- name: internal-tls
  secret:
    secretName: {{ .root.Values.internal.tls.secretName }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.database.authority }}
{{- if .secretName }}
- name: authorities
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: database.crt
{{- end }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end }}

{{/* What a pod of ours is besides its containers and volumes. */}}
{{- define "godwit.pod" -}}
automountServiceAccountToken: false
# Variables of other Services have no business here.
enableServiceLinks: false
serviceAccountName: {{ .serviceAccount }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "godwit.container" -}}
image: {{ include "godwit.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "godwit.restricted" . | nindent 2 }}
{{- end }}

{{/* What Kubernetes' restricted profile wants of a container, and a root that nobody writes to. */}}
{{- define "godwit.restricted" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Somebody else's containers, with a security context each. */}}
{{- define "godwit.initContainers" -}}
{{- $all := list -}}
{{- range .Values.extraInitContainers -}}
{{- $all = append $all (ternary . (set (deepCopy .) "securityContext" (include "godwit.restricted" $ | fromYaml)) (hasKey . "securityContext")) -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{/* Peers of a NetworkPolicy, which are this region's network where none are listed: (dict "root" $ "peers" LIST). */}}
{{- define "godwit.peers" -}}
{{- if .peers -}}
{{- toYaml .peers -}}
{{- else -}}
- ipBlock:
    cidr: {{ (get .root.Values.regions .root.Values.region).network }}
{{- end -}}
{{- end }}

{{/* Rules of egress that more than one policy has: where names are resolved, and where Postgres is. */}}
{{- define "godwit.egress.dns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- define "godwit.egress.database" -}}
- to:
    {{- if eq .Values.database.mode "cloudnativepg" }}
    - podSelector:
        matchLabels:
          cnpg.io/cluster: {{ include "godwit.cluster" (dict "root" . "region" .Values.region) }}
    {{- else }}
    {{- include "godwit.peers" (dict "root" . "peers" .Values.database.peers) | nindent 4 }}
    {{- end }}
  ports:
    - {port: {{ .Values.database.port }}, protocol: TCP}
{{- end }}

{{/* Where the regions' internal listeners are, this one's too: whoever asks all of them asks this one as the others do. */}}
{{- define "godwit.egress.regions" -}}
{{- range $name, $region := .Values.regions }}
- to:
    - ipBlock:
        cidr: {{ $region.network }}
  ports:
    - {port: {{ include "godwit.port" $region.internalUrl }}, protocol: TCP}
{{- end }}
- to:
    - podSelector:
        matchLabels:
          {{- include "godwit.selector" (dict "Release" .Release "component" "api") | nindent 10 }}
  ports:
    - {port: internal, protocol: TCP}
{{- end }}
