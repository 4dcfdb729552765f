{{/*
What the server is told, as environment variables with the names of its flags. Secrets come as files. No name is there twice:
server-side apply refuses that. What is empty is left to the server.
*/}}

{{/* The database alone: what `ota-server migrate` needs as well. */}}
{{- define "ota.databaseEnv" -}}
{{- $db := .Values.database -}}
{{- if $db.existingSecret }}
- name: OTA_DATABASE_URL_FILE
  value: /etc/ota/database/uri
{{- else }}
- name: DATABASE_URL
  value: {{ printf "postgres://%s@%s:%d/%s" $db.user (ternary (printf "[%s]" $db.host) $db.host (contains ":" $db.host)) (int $db.port) $db.name | quote }}
{{- if $db.passwordSecret }}
- name: OTA_DATABASE_PASSWORD_FILE
  value: /etc/ota/database/password
{{- end }}
{{- end }}
{{- with $db.sslmode }}
- name: PGSSLMODE
  value: {{ . }}
{{- end }}
{{- if $db.sslRootCert.existingSecret }}
- name: PGSSLROOTCERT
  value: /etc/ota/database-ca/ca.crt
{{- end }}
- name: OTA_DATA_DIR
  value: /var/lib/ota
- name: OTA_LOG
  value: {{ .Values.server.log | quote }}
- name: OTA_LOG_FORMAT
  value: {{ .Values.server.logFormat }}
{{- end -}}

{{- define "ota.env" -}}
{{- $s := .Values.server -}}
{{- include "ota.databaseEnv" . }}
- name: OTA_DATABASE_CONNECTIONS
  value: {{ int64 $s.databaseConnections | quote }}
- name: OTA_SCHEMA
  value: {{ ternary "migrate" "wait" (eq .Values.migrations.mode "none") }}
- name: OTA_LISTEN
  value: {{ printf "%s:8443" $s.address | quote }}
- name: OTA_ADMIN_LISTEN
  value: {{ printf "%s:8444" $s.address | quote }}
- name: OTA_METRICS_LISTEN
  value: {{ printf "%s:9464" $s.address | quote }}
{{- if eq .Values.tls.mode "proxy" }}
- name: OTA_NO_TLS
  value: "true"
- name: OTA_INSECURE_LISTEN
  value: "true"
{{- else if eq .Values.tls.mode "builtin" }}
{{- with include "ota.tlsNames" . }}
- name: OTA_TLS_NAME
  value: {{ replace "\n" "," . | quote }}
{{- end }}
{{- else }}
- name: OTA_TLS_CERT
  value: /etc/ota/tls/tls.crt
- name: OTA_TLS_KEY
  value: /etc/ota/tls/tls.key
{{- end }}
{{- with .Values.trustedProxies }}
- name: OTA_TRUSTED_PROXIES
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.forwardedCertificates }}
{{- if .names }}
- name: OTA_TRUSTED_PROXY_SAN
  value: {{ join "," .names | quote }}
- name: OTA_TRUSTED_PROXY_CA
  value: /etc/ota/proxies/ca.crt
- name: OTA_TRUSTED_PROXY_HEADER
  value: {{ .header }}
{{- end }}
{{- end }}
{{- with .Values.oidc }}
{{- if .issuer }}
- name: OTA_OIDC_ISSUER
  value: {{ .issuer | quote }}
- name: OTA_OIDC_CLIENT_ID
  value: {{ .clientId | quote }}
{{- with .audience }}
- name: OTA_OIDC_AUDIENCE
  value: {{ . | quote }}
{{- end }}
- name: OTA_OIDC_SCOPES
  value: {{ join "," .scopes | quote }}
- name: OTA_OIDC_ROLE_CLAIM
  value: {{ .roleClaim | quote }}
- name: OTA_OIDC_ROLE
  value: {{ join "\n" .roles | quote }}
{{- end }}
{{- end }}
- name: OTA_KEY_FILE
  value: /etc/ota/key-encryption-key/key
{{- if .Values.adminToken.create }}
- name: OTA_ADMIN_TOKEN_FILE
  value: /etc/ota/admin-token/token
{{- end }}
{{- with .Values.objectStore }}
{{- if .bucket }}
- name: OTA_BLOB_STORE
  value: {{ printf "s3://%s" (list .bucket (trimAll "/" .prefix) | compact | join "/") | quote }}
{{- with .endpoint }}
- name: AWS_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- if .existingSecret }}
- name: OTA_S3_ACCESS_KEY_ID_FILE
  value: /etc/ota/object-store/access-key-id
- name: OTA_S3_SECRET_ACCESS_KEY_FILE
  value: /etc/ota/object-store/secret-access-key
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.persistence.enabled }}
- name: OTA_BLOB_STORE
  value: /var/lib/ota/blobs
{{- end }}
- name: OTA_CHECK_IN_INTERVAL
  value: {{ $s.checkInInterval }}
- name: OTA_DEVICE_CERTIFICATE_LIFETIME
  value: {{ $s.deviceCertificateLifetime }}
- name: OTA_ENROLL_RATE
  value: {{ $s.enrollRate }}
- name: OTA_CALL_RATE
  value: {{ $s.callRate }}
- name: OTA_MAX_PAYLOAD_BYTES
  value: {{ int64 $s.maxPayloadBytes | quote }}
- name: OTA_MAX_CONNECTION_AGE
  value: {{ $s.maxConnectionAge }}
- name: OTA_STOP_DELAY
  value: {{ $s.stopDelay }}
- name: OTA_DRAIN_TIMEOUT
  value: {{ $s.drainTimeout }}
{{- end -}}
