{{/* Volumes, and where containers see them. Secrets are files that only the containers which need them have; 292 is 0444. */}}

{{- define "ota.databaseVolumes" -}}
{{- $db := .Values.database -}}
{{- if or $db.existingSecret $db.passwordSecret }}
- name: database
  secret:
    secretName: {{ $db.existingSecret | default $db.passwordSecret }}
    defaultMode: 292
    items:
      - key: {{ ternary $db.secretKeys.uri $db.secretKeys.password (ne $db.existingSecret "") | quote }}
        path: {{ ternary "uri" "password" (ne $db.existingSecret "") }}
{{- end }}
{{- if $db.sslRootCert.existingSecret }}
- name: database-ca
  secret:
    secretName: {{ $db.sslRootCert.existingSecret }}
    defaultMode: 292
    items:
      - key: {{ $db.sslRootCert.secretKey | quote }}
        path: ca.crt
{{- end }}
- name: data
  emptyDir:
    sizeLimit: {{ .Values.scratch.dataSizeLimit }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.scratch.tmpSizeLimit }}
{{- end -}}

{{- define "ota.databaseMounts" -}}
{{- $db := .Values.database -}}
{{- if or $db.existingSecret $db.passwordSecret }}
- name: database
  mountPath: /etc/ota/database
  readOnly: true
{{- end }}
{{- if $db.sslRootCert.existingSecret }}
- name: database-ca
  mountPath: /etc/ota/database-ca
  readOnly: true
{{- end }}
- name: data
  mountPath: /var/lib/ota
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "ota.volumes" -}}
{{- include "ota.databaseVolumes" . }}
- name: key-encryption-key
  secret:
    secretName: {{ include "ota.keyEncryptionKey" . }}
    defaultMode: 292
    items:
      - key: {{ .Values.keyEncryptionKey.secretKey | quote }}
        path: key
{{- if .Values.adminToken.create }}
- name: admin-token
  secret:
    secretName: {{ include "ota.adminToken" . }}
    defaultMode: 292
    items:
      - key: {{ .Values.adminToken.secretKey | quote }}
        path: token
{{- end }}
{{- if .Values.objectStore.existingSecret }}
- name: object-store
  secret:
    secretName: {{ .Values.objectStore.existingSecret }}
    defaultMode: 292
    items:
      - key: {{ .Values.objectStore.secretKeys.accessKeyId | quote }}
        path: access-key-id
      - key: {{ .Values.objectStore.secretKeys.secretAccessKey | quote }}
        path: secret-access-key
{{- end }}
{{- if .Values.persistence.enabled }}
- name: payloads
  persistentVolumeClaim:
    claimName: {{ include "ota.claim" . }}
{{- end }}
{{- if has .Values.tls.mode (list "secret" "certManager") }}
- name: tls
  secret:
    secretName: {{ include "ota.tlsSecret" . }}
    defaultMode: 292
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
{{- end }}
{{- if .Values.forwardedCertificates.names }}
- name: proxies
  secret:
    secretName: {{ .Values.forwardedCertificates.existingSecret }}
    defaultMode: 292
    items:
      - key: {{ .Values.forwardedCertificates.secretKey | quote }}
        path: ca.crt
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ota.mounts" -}}
{{- include "ota.databaseMounts" . }}
- name: key-encryption-key
  mountPath: /etc/ota/key-encryption-key
  readOnly: true
{{- if .Values.adminToken.create }}
- name: admin-token
  mountPath: /etc/ota/admin-token
  readOnly: true
{{- end }}
{{- if .Values.objectStore.existingSecret }}
- name: object-store
  mountPath: /etc/ota/object-store
  readOnly: true
{{- end }}
{{- if .Values.persistence.enabled }}
- name: payloads
  mountPath: /var/lib/ota/blobs
{{- end }}
{{- if has .Values.tls.mode (list "secret" "certManager") }}
- name: tls
  mountPath: /etc/ota/tls
  readOnly: true
{{- end }}
{{- if .Values.forwardedCertificates.names }}
- name: proxies
  mountPath: /etc/ota/proxies
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
