{{- define "seawall.name" -}}
{{- printf "%s" (ternary .Release.Name (printf "%s-seawall" .Release.Name) (contains "seawall" .Release.Name)) | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "seawall.selector" -}}
app.kubernetes.io/name: seawall
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "seawall.labels" -}}
{{ include "seawall.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "seawall.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "seawall.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "seawall.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Turns in flight may take as long as a turn may. */}}
{{- define "seawall.drain" -}}
{{- add .Values.turnSeconds 5 -}}
{{- end -}}

{{- define "seawall.grace" -}}
{{- add .Values.stop.preStopSeconds .Values.stop.leaveSeconds (include "seawall.drain" . | int) 10 -}}
{{- end -}}

{{/* A database of SQLite is one pod's. */}}
{{- define "seawall.one" -}}
{{- if eq .Values.sessions.store "sqlite" -}}
{{- $most := int .Values.replicas -}}
{{- if ne .Values.autoscaling.mode "none" -}}
{{- $most = int .Values.autoscaling.maximum -}}
{{- end -}}
{{- if gt $most 1 -}}
{{- fail (printf "sessions.store sqlite is for one pod, and there may be %d: set autoscaling.mode=none and replicas=1, or sessions.store=dynamodb" $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}
