{{/* What everything is called. */}}

{{- define "ota.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for every ending that is added to it: 63 is the most, -headless, -key-encryption-key and -migrate-12345678 follow. */}}
{{- define "ota.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 43 | trimSuffix "-" -}}
{{- end -}}

{{- define "ota.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ota.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "ota.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- $name := ternary (printf "%s/%s" $registry .Values.image.repository) .Values.image.repository (ne $registry "") -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object: include with (list . "server"), or another component. */}}
{{- define "ota.labels" -}}
{{- include "ota.ownLabels" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ota.ownLabels" -}}
{{- $root := index . 0 -}}
{{- include "ota.selectorLabels" . }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: ota
{{- end -}}

{{- define "ota.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "ota.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Secrets and claims, the chart's own or somebody else's. */}}
{{- define "ota.keyEncryptionKey" -}}
{{- default (printf "%s-key-encryption-key" (include "ota.fullname" .)) .Values.keyEncryptionKey.existingSecret -}}
{{- end -}}
{{- define "ota.adminToken" -}}
{{- default (printf "%s-admin-token" (include "ota.fullname" .)) .Values.adminToken.existingSecret -}}
{{- end -}}
{{- define "ota.tlsSecret" -}}
{{- ternary (printf "%s-tls" (include "ota.fullname" .)) .Values.tls.existingSecret (eq .Values.tls.mode "certManager") -}}
{{- end -}}
{{- define "ota.claim" -}}
{{- default (printf "%s-payloads" (include "ota.fullname" .)) .Values.persistence.existingClaim -}}
{{- end -}}

{{/* Names by which the server is reached, one a line: for its certificate. */}}
{{- define "ota.tlsNames" -}}
{{- $root := . -}}
{{- $names := list -}}
{{- if .Values.tls.serviceNames -}}
{{- range $service := list "" "-admin" -}}
{{- $short := printf "%s%s" (include "ota.fullname" $root) $service -}}
{{- $names = concat $names (list $short (printf "%s.%s" $short $root.Release.Namespace) (printf "%s.%s.svc" $short $root.Release.Namespace)) -}}
{{- end -}}
{{- $names = append $names "localhost" -}}
{{- end -}}
{{- range $route := list .Values.gateway.devices .Values.gateway.admin -}}
{{- if $route.enabled -}}{{- $names = concat $names $route.hostnames -}}{{- end -}}
{{- end -}}
{{- range $route := list .Values.ingress.devices .Values.ingress.admin -}}
{{- if and $route.enabled $route.hostname -}}{{- $names = append $names $route.hostname -}}{{- end -}}
{{- end -}}
{{- concat $names .Values.tls.names | uniq | join "\n" -}}
{{- end -}}

{{/* A time such as 90s or 1h in seconds. */}}
{{- define "ota.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- if eq $unit "ms" -}}{{- div (add $number 999) 1000 -}}
{{- else -}}{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit | int64) -}}
{{- end -}}
{{- end -}}

{{/* The least time that a pod needs to stop: time to be forgotten, time to finish, and something to spare. */}}
{{- define "ota.stopSeconds" -}}
{{- add (include "ota.seconds" .Values.server.stopDelay | int64) (include "ota.seconds" .Values.server.drainTimeout | int64) 10 -}}
{{- end -}}

{{/* Whether several pods may write payloads at once: "true" or nothing. */}}
{{- define "ota.sharesPayloads" -}}
{{- if not .Values.persistence.enabled -}}true
{{- else if has "ReadWriteMany" .Values.persistence.accessModes -}}true
{{- end -}}
{{- end -}}
