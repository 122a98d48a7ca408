{{/* What a Cluster of CloudNativePG is made of. */}}

{{/* The name of a region's Cluster, the same in every region's objects: (dict "root" $ "region" NAME). */}}
{{- define "godwit.cluster" -}}
{{- include "godwit.release" .root }}-{{ .region -}}
{{- end }}

{{/*
Refuses to make a Cluster that is there follow another than it was made to: the difference would go into the live object, over what Godwit has
written there since. `bootstrap` tells how it was made; of a Cluster made by hand otherwise it tells nothing.
(dict "live" OBJECT "self" NAME "first" NAME); without a cluster to ask, as in `helm template`, `live` is empty.
*/}}
{{- define "godwit.cluster.same" -}}
{{- $bootstrap := dig "spec" "bootstrap" dict .live -}}
{{- $made := dig "pg_basebackup" "source" (ternary .self "" (hasKey $bootstrap "initdb")) $bootstrap -}}
{{- if and $made (ne $made .first) -}}
{{- fail (printf "cloudnativepg.bootstrapFrom: leads to %s, and %s was made from %s: leave it as it was, whoever is the primary now" .first .self $made) -}}
{{- end -}}
{{- end }}

{{/* Settings of Postgres, and over them the values' own: (dict "connections" N "more" MAP). */}}
{{- define "godwit.cluster.parameters" -}}
{{- toYaml (mustMergeOverwrite (include "godwit.cluster.own" . | fromYaml) .more) -}}
{{- end }}

{{- define "godwit.cluster.own" -}}
hot_standby_feedback: "on"
max_connections: {{ .connections | quote }}
# Below routing.bookmark_wait_ms_max: a reader must not hold replay up for longer than a bookmark is waited for.
max_standby_streaming_delay: 400ms
max_replication_slots: "20"
max_wal_senders: "20"
# Between Clusters the operator uses no slots: this is how far a region may fall behind before it needs an archive, or a new copy. The
# volume must have room for it.
wal_keep_size: 4GB
# A slot that somebody makes must not fill the disk.
max_slot_wal_keep_size: 10GB
{{- end }}
