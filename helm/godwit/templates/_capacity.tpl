{{/*
The bounds of the HorizontalPodAutoscaler, by the regions' shares of all requests. At most: the largest other region is
lost, and all that went there comes here. Results are {min, max, evacuated}, as YAML.
*/}}
{{- define "godwit.capacity" -}}
{{- $all := .root.Values.autoscaling.replicasForAllRegions | int -}}
{{- $own := (get .root.Values.regions .region).share | int -}}
{{- $largest := 0 -}}
{{- range $name, $region := .root.Values.regions -}}
{{- if ne $name $.region }}{{ $largest = max $largest (int $region.share) }}{{ end -}}
{{- end -}}
{{- /* Rounded up. */ -}}
{{- $rest := div (add (mul $all $own) 99) 100 -}}
{{- $evacuated := div (add (mul $all (add $own $largest)) 99) 100 -}}
min: {{ max 2 $rest }}
max: {{ max 2 $rest $evacuated }}
evacuated: {{ $evacuated }}
{{- end }}

{{- define "godwit.bounds" -}}
{{- $capacity := include "godwit.capacity" (dict "root" . "region" .Values.region) | fromYaml -}}
min: {{ .Values.autoscaling.minReplicas | int | default (int $capacity.min) }}
max: {{ .Values.autoscaling.maxReplicas | int | default (int $capacity.max) }}
{{- end }}
