{{/* What a process needs to move the database under a platform: its name there, a way to the platform, and the right to use it. */}}

{{/* What the platform calls a region's database: (dict "root" $ "region" NAME). Of the chart's own Clusters it is known. */}}
{{- define "godwit.database" -}}
{{- $named := (get .root.Values.regions .region).database -}}
{{- if and (not $named) (eq .root.Values.database.mode "cloudnativepg") -}}
{{- $named = include "godwit.cluster" . -}}
{{- end -}}
{{- $named -}}
{{- end }}

{{/* Refuses values that would leave it without, or that the program would refuse. */}}
{{- define "godwit.validate.control" -}}
{{- $values := .Values -}}
{{- $control := $values.failover.control -}}
{{- $url := $values.secrets.databaseControlUrl.secretName -}}
{{- if and (eq $values.database.mode "cloudnativepg") (ne $control "cloudnativepg") (or $url (ne $control "postgres")) -}}
{{- fail (printf "failover.control: is %s, and the Cluster of database.mode: cloudnativepg can be moved by cloudnativepg alone" $control) -}}
{{- end -}}
{{- if and (eq $control "aurora") (not $values.failover.globalDatabase) -}}
{{- fail "failover.globalDatabase: is missing: which global cluster do the regions' Aurora clusters belong to?" -}}
{{- end -}}
{{- if and (ne $control "aurora") $values.failover.globalDatabase -}}
{{- fail (printf "failover.globalDatabase: is for aurora, and failover.control is %s" $control) -}}
{{- end -}}
{{- $agent := dig "failover" "agent" list $values.settings -}}
{{- if and $agent (eq $control "postgres") -}}
{{- $program := first $agent -}}
{{- $brought := $values.failover.agentInImage -}}
{{- range $values.extraVolumeMounts -}}
{{- if or (eq $program .mountPath) (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $program) -}}
{{- $brought = true -}}
{{- end -}}
{{- end -}}
{{- if not $brought -}}
{{- fail (printf "settings.failover.agent: %s is in none of extraVolumeMounts, and the image has no program but Godwit: mount it, or set failover.agentInImage where yours has it" $program) -}}
{{- end -}}
{{- end -}}
{{- if ne $control "postgres" -}}
{{- if not $url -}}
{{- fail (printf "secrets.databaseControlUrl.secretName: is missing, and with failover.control: %s too the primary is fenced by SQL" $control) -}}
{{- end -}}
{{- if eq (dig "failover" "durability" "async" $values.settings) "quorum" -}}
{{- fail (printf "settings.failover.durability: quorum needs synchronous_standby_names, which are not Godwit's with failover.control: %s" $control) -}}
{{- end -}}
{{- if dig "failover" "agent" "" $values.settings -}}
{{- fail (printf "settings.failover.agent: is for failover.control: postgres, and it is %s" $control) -}}
{{- end -}}
{{- $forms := dict
    "cloudnativepg" (list "a Cluster's name" "^[a-z]([-a-z0-9]*[a-z0-9])?$")
    "rds" (list "the ARN of a DB instance" "^arn:aws[-a-z]*:rds:[-a-z0-9]+:[0-9]{12}:db:[-A-Za-z0-9]+$")
    "aurora" (list "the ARN of a DB cluster" "^arn:aws[-a-z]*:rds:[-a-z0-9]+:[0-9]{12}:cluster:[-A-Za-z0-9]+$") -}}
{{- $form := get $forms $control -}}
{{- range $name, $_ := $values.regions -}}
{{- $database := include "godwit.database" (dict "root" $ "region" $name) -}}
{{- if not (regexMatch (last $form) $database) -}}
{{- fail (printf "regions.%s.database: %q is not %s, which failover.control: %s needs of every region" $name $database (first $form) $control) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (has $control (list "rds" "aurora")) $values.networkPolicy.enabled (not $values.networkPolicy.aws) -}}
{{- fail (printf "networkPolicy.aws: is empty, and would keep failover.control: %s from AWS: list where its API is, 0.0.0.0/0 without interface endpoints" $control) -}}
{{- end -}}
{{- end }}

{{/* As Kubernetes mounts it where it mounts one by itself, but in the one pod that has a use for it, and for an hour at a time. */}}
{{- define "godwit.control.volume" -}}
{{- if eq .Values.failover.control "cloudnativepg" }}
- name: kubernetes-api
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end }}
{{- end }}

{{- define "godwit.control.mount" -}}
{{- if eq .Values.failover.control "cloudnativepg" }}
- name: kubernetes-api
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
{{- end }}

{{- define "godwit.control.egress" -}}
{{- if eq .Values.failover.control "cloudnativepg" }}
- to:
    {{- include "godwit.peers" (dict "root" . "peers" .Values.kubernetesApi.peers) | nindent 4 }}
  ports:
    - {port: {{ .Values.kubernetesApi.port }}, protocol: TCP}
{{- else if has .Values.failover.control (list "rds" "aurora") }}
- to:
    {{- toYaml .Values.networkPolicy.aws | nindent 4 }}
  ports:
    - {port: 443, protocol: TCP}
# The agent of EKS Pod Identity, on the node.
- to:
    - ipBlock:
        cidr: 169.254.170.23/32
    - ipBlock:
        cidr: fd00:ec2::23/128
  ports:
    - {port: 80, protocol: TCP}
{{- end }}
{{- end }}
