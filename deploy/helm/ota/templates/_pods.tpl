{{/* What all pods of the chart share. */}}

{{- define "ota.podSettings" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The container that brings the schema up to date: in a Job, or before the server. */}}
{{- define "ota.migrateContainer" -}}
name: migrate
image: {{ include "ota.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/ota-server, migrate]
env:
  {{- include "ota.databaseEnv" . | trim | nindent 2 }}
resources:
  {{- toYaml .Values.migrations.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  {{- include "ota.databaseMounts" . | trim | nindent 2 }}
{{- end -}}

{{/* A probe: (list . "startup" "liveness") asks the operations port for that health, or has the server's own command ask. */}}
{{- define "ota.probe" -}}
{{- $root := index . 0 -}}
{{- $times := get $root.Values.probes (index . 1) -}}
{{- if eq $root.Values.probes.type "grpc" -}}
grpc:
  port: 9464
  service: {{ index . 2 }}
{{- else -}}
exec:
  command: [/ota-server, healthcheck]
{{- end }}
periodSeconds: {{ int $times.periodSeconds }}
timeoutSeconds: {{ int $times.timeoutSeconds }}
failureThreshold: {{ int $times.failureThreshold }}
{{- end -}}

{{/* The Job's pod. */}}
{{- define "ota.migrationPod" -}}
{{- include "ota.podSettings" . }}
restartPolicy: Never
containers:
  - {{ include "ota.migrateContainer" . | nindent 4 | trim }}
volumes:
  {{- include "ota.databaseVolumes" . | trim | nindent 2 }}
{{- end -}}
