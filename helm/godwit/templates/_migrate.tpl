{{/* The Job's specification; of it comes its name where there is one for each. */}}
{{- define "godwit.migrate" -}}
# Another one may hold the lock, or the primary be moving.
backoffLimit: 10
template:
  metadata:
    labels:
      {{- include "godwit.labels" (dict "root" . "component" "migrate") | nindent 6 }}
    annotations:
      {{- include "godwit.annotations" . | nindent 6 }}
  spec:
    {{- include "godwit.pod" (dict "root" . "serviceAccount" "default") | nindent 4 }}
    restartPolicy: Never
    containers:
      - name: migrate
        {{- include "godwit.container" . | nindent 8 }}
        args: [migrate, --config, /etc/godwit/godwit.toml, --output, json]
        env:
          {{- include "godwit.secretEnv" (dict "root" . "owner" true) | trim | nindent 10 }}
        resources:
          {{- toYaml .Values.migrations.resources | nindent 10 }}
        volumeMounts:
          {{- include "godwit.mounts" (dict "root" .) | nindent 10 }}
    volumes:
      {{- include "godwit.volumes" (dict "root" . "owner" true) | nindent 6 }}
{{- end }}

{{/* What orders the objects of the migration: in Helm by hooks, in Argo CD by waves. */}}
{{- define "godwit.migrate.order" -}}
{{- if eq .root.Values.migrations.mode "hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation
{{- else -}}
argocd.argoproj.io/sync-wave: {{ .wave | quote }}
{{- end }}
{{- end }}
