{{- define "flannel.labels" -}}
tier: node
app: flannel
{{- with .Values.global.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "flannel.image" -}}
{{ .Values.flannel.image.repository }}:{{ default (printf "v%s" .Chart.AppVersion) .Values.flannel.image.tag }}
{{- end }}

{{- define "flannel.cniImage" -}}
{{- $cni := .Values.flannel.image_cni -}}
{{ default .Values.flannel.image.repository $cni.repository }}:{{ default (default (printf "v%s" .Chart.AppVersion) .Values.flannel.image.tag) $cni.tag }}
{{- end }}
