{{/* The kind of a route, from (list . .Values.gateway.devices). */}}
{{- define "ota.routeKind" -}}
{{- default (ternary "GRPCRoute" "TLSRoute" (eq (index . 0).Values.tls.mode "proxy")) (index . 1).kind -}}
{{- end -}}

{{/* Whether an Ingress ends TLS: "true" or nothing. It does before a plain-text server, and where it passes certificates on. */}}
{{- define "ota.ingressEndsTLS" -}}
{{- if or (eq .Values.tls.mode "proxy") .Values.forwardedCertificates.names -}}true{{- end -}}
{{- end -}}

{{/* The newest version of a kind of the Gateway API that the cluster has, or the oldest that any has. */}}
{{- define "ota.gatewayVersion" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- $group := "gateway.networking.k8s.io" -}}
{{- $found := "" -}}
{{- range $version := index . 2 -}}
{{- if and (not $found) ($root.Capabilities.APIVersions.Has (printf "%s/%s/%s" $group $version $kind)) -}}
{{- $found = $version -}}
{{- end -}}
{{- end -}}
{{- printf "%s/%s" $group (default (last (index . 2)) $found) -}}
{{- end -}}
