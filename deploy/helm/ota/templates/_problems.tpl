{{/* What is wrong with the values beyond their form, each in one sentence with what to do. values.schema.json has the form. */}}
{{- define "ota.problems" -}}
{{- $v := .Values -}}
{{- $problems := list -}}

{{- $db := $v.database -}}
{{- if and (not $db.existingSecret) (not $db.host) -}}
{{- $problems = append $problems "database: there is none; name the Secret with its URL in database.existingSecret, or give database.host and database.passwordSecret. The chart brings no Postgres: see examples/laptop.yaml and examples/cnpg-cluster.yaml" -}}
{{- end -}}
{{- if and $db.existingSecret (or $db.host $db.passwordSecret) -}}
{{- $problems = append $problems "database: existingSecret has the whole URL, so leave host and passwordSecret out, or existingSecret" -}}
{{- end -}}
{{- if and (has $db.sslmode (list "verify-ca" "verify-full")) (not $db.sslRootCert.existingSecret) -}}
{{- $problems = append $problems (printf "database.sslmode: %s needs the authority to verify with; name its Secret in database.sslRootCert.existingSecret" $db.sslmode) -}}
{{- end -}}

{{- $store := $v.objectStore -}}
{{- if and (not $store.bucket) (not $v.persistence.enabled) -}}
{{- $problems = append $problems "payloads: they have no place; give objectStore.bucket, or persistence.enabled with one replica" -}}
{{- end -}}
{{- if and $store.bucket $v.persistence.enabled -}}
{{- $problems = append $problems "payloads: they are in one place; leave objectStore.bucket out, or persistence.enabled" -}}
{{- end -}}
{{- if and $v.persistence.enabled (not $store.bucket) (or $store.endpoint $store.existingSecret $store.region $store.prefix) -}}
{{- $problems = append $problems "objectStore: its settings are of no use without objectStore.bucket" -}}
{{- end -}}
{{- if not (include "ota.sharesPayloads" .) -}}
{{- if or $v.autoscaling.enabled (gt (int $v.replicas) 1) -}}
{{- $problems = append $problems "persistence: one node may write to this volume, so there can be one replica; set replicas to 1 and autoscaling.enabled to false, or use objectStore, or accessModes [ReadWriteMany]" -}}
{{- end -}}
{{- if and $v.updateStrategy (ne (default "RollingUpdate" $v.updateStrategy.type) "Recreate") -}}
{{- $problems = append $problems "updateStrategy: one node may write to this volume, so a new pod waits for the old one for ever; set type to Recreate, or leave updateStrategy empty" -}}
{{- end -}}
{{- end -}}

{{- if and (eq $v.tls.mode "secret") (not $v.tls.existingSecret) -}}
{{- $problems = append $problems "tls: mode secret needs tls.existingSecret, a Secret of type kubernetes.io/tls" -}}
{{- end -}}
{{- if and (ne $v.tls.mode "secret") $v.tls.existingSecret -}}
{{- $problems = append $problems (printf "tls: existingSecret is for mode secret, and the mode is %s" $v.tls.mode) -}}
{{- end -}}
{{- if and (eq $v.tls.mode "certManager") (not $v.tls.certManager.issuerRef.name) -}}
{{- $problems = append $problems "tls: mode certManager needs tls.certManager.issuerRef.name" -}}
{{- end -}}
{{- if and (eq $v.tls.mode "certManager") (not (include "ota.tlsNames" .)) -}}
{{- $problems = append $problems "tls: a certificate needs names; give tls.names, or a route with hostnames" -}}
{{- end -}}
{{- $forwarded := $v.forwardedCertificates -}}
{{- if and $forwarded.names (not $forwarded.existingSecret) -}}
{{- $problems = append $problems "forwardedCertificates: names need the authorities that sign the proxies' certificates; name their Secret in forwardedCertificates.existingSecret" -}}
{{- end -}}
{{- if and $forwarded.existingSecret (not $forwarded.names) -}}
{{- $problems = append $problems "forwardedCertificates: without names no proxy is believed; give those in the proxies' certificates" -}}
{{- end -}}
{{- if and $forwarded.names (eq $v.tls.mode "proxy") -}}
{{- $problems = append $problems "forwardedCertificates: a proxy has to call over TLS to be believed, and tls.mode is proxy; use builtin, secret or certManager" -}}
{{- end -}}

{{- range $which, $route := dict "devices" $v.gateway.devices "admin" $v.gateway.admin -}}
{{- if $route.enabled -}}
{{- if not $route.parentRefs -}}
{{- $problems = append $problems (printf "gateway.%s: a route belongs to a Gateway; name it in parentRefs" $which) -}}
{{- end -}}
{{- $kind := include "ota.routeKind" (list $ $route) -}}
{{- if and (eq $kind "TLSRoute") (not $route.hostnames) -}}
{{- $problems = append $problems (printf "gateway.%s: a TLSRoute is chosen by name; give hostnames" $which) -}}
{{- end -}}
{{- if and (eq $kind "TLSRoute") (eq $v.tls.mode "proxy") -}}
{{- $problems = append $problems (printf "gateway.%s: a TLSRoute passes TLS on, and with tls.mode proxy the server speaks none; leave kind empty, or use another tls.mode" $which) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $v.gateway.backendTLS.enabled -}}
{{- if eq $v.tls.mode "proxy" -}}
{{- $problems = append $problems "gateway.backendTLS: with tls.mode proxy the server speaks no TLS" -}}
{{- end -}}
{{- if not $v.gateway.backendTLS.caConfigMap -}}
{{- $problems = append $problems "gateway.backendTLS: name the ConfigMap with the authority (ca.crt) in caConfigMap" -}}
{{- end -}}
{{- end -}}
{{- range $which, $route := dict "devices" $v.ingress.devices "admin" $v.ingress.admin -}}
{{- if and $route.enabled (not $route.hostname) -}}
{{- $problems = append $problems (printf "ingress.%s: give its hostname" $which) -}}
{{- end -}}
{{- if and $route.enabled (not $route.tlsSecret) (eq (include "ota.ingressEndsTLS" $) "true") -}}
{{- $problems = append $problems (printf "ingress.%s: the controller ends TLS here and gRPC needs TLS; name the Secret with its certificate in tlsSecret" $which) -}}
{{- end -}}
{{- end -}}

{{- if $v.oidc.issuer -}}
{{- if or (not $v.oidc.clientId) (not $v.oidc.roles) -}}
{{- $problems = append $problems "oidc: issuer, clientId and at least one of roles belong together, such as ota-admins=admin" -}}
{{- end -}}
{{- else if or $v.oidc.clientId $v.oidc.roles -}}
{{- $problems = append $problems "oidc: issuer, clientId and at least one of roles belong together; the issuer is missing" -}}
{{- end -}}

{{- $as := $v.autoscaling -}}
{{- if $as.enabled -}}
{{- if gt (int $as.minReplicas) (int $as.maxReplicas) -}}
{{- $problems = append $problems (printf "autoscaling: minReplicas (%d) is more than maxReplicas (%d)" (int $as.minReplicas) (int $as.maxReplicas)) -}}
{{- end -}}
{{- if not (or $as.targetCPUUtilizationPercentage $as.targetMemoryUtilizationPercentage $as.metrics) -}}
{{- $problems = append $problems "autoscaling: it needs something to go by; give targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" -}}
{{- end -}}
{{- end -}}
{{- $pdb := $v.podDisruptionBudget -}}
{{- if $pdb.enabled -}}
{{- $least := ternary (int $as.minReplicas) (int $v.replicas) $as.enabled -}}
{{- $min := toString (default "" $pdb.minAvailable) -}}
{{- if and (kindIs "invalid" $pdb.minAvailable) (kindIs "invalid" $pdb.maxUnavailable) -}}
{{- $problems = append $problems "podDisruptionBudget: give maxUnavailable or minAvailable" -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $pdb.minAvailable)) (not (kindIs "invalid" $pdb.maxUnavailable)) -}}
{{- $problems = append $problems "podDisruptionBudget: it takes one of maxUnavailable and minAvailable; set the other to null" -}}
{{- end -}}
{{- if has (toString $pdb.maxUnavailable) (list "0" "0%") -}}
{{- $problems = append $problems "podDisruptionBudget: maxUnavailable 0 blocks every drain of a node; use 1 or more" -}}
{{- end -}}
{{- if hasSuffix "%" $min -}}
{{- if gt (int (ceil (divf (mulf (trimSuffix "%" $min | int) $least) 100))) (sub $least 1 | int) -}}
{{- $problems = append $problems (printf "podDisruptionBudget: minAvailable %s of %d replicas blocks every drain of a node; use maxUnavailable 1" $min $least) -}}
{{- end -}}
{{- else if $min -}}
{{- if ge (int $min) $least -}}
{{- $problems = append $problems (printf "podDisruptionBudget: minAvailable %s of %d replicas blocks every drain of a node; use maxUnavailable 1" $min $least) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not (kindIs "invalid" $v.terminationGracePeriodSeconds) -}}
{{- $least := include "ota.stopSeconds" . | int -}}
{{- if lt (int $v.terminationGracePeriodSeconds) $least -}}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds: %d s are too short; stopDelay, drainTimeout and 10 s to spare are %d s. Leave it out to have that" (int $v.terminationGracePeriodSeconds) $least) -}}
{{- end -}}
{{- end -}}

{{- $own := dict -}}
{{- range fromYamlArray (include "ota.env" .) -}}{{- $_ := set $own .name true -}}{{- end -}}
{{- $given := dict -}}
{{- range $v.extraEnv -}}
{{- if hasKey $own .name -}}
{{- $problems = append $problems (printf "extraEnv: the chart sets %s by itself; there is a value for it in values.yaml" .name) -}}
{{- else if hasKey $given .name -}}
{{- $problems = append $problems (printf "extraEnv: %s is there twice" .name) -}}
{{- else if has .name (list "DATABASE_URL" "OTA_DATABASE_URL" "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") -}}
{{- $problems = append $problems (printf "extraEnv: %s is a secret; put it into a Secret and name that in database or objectStore" .name) -}}
{{- end -}}
{{- $_ := set $given .name true -}}
{{- end -}}
{{- range $value, $labels := dict
      "commonLabels" $v.commonLabels
      "podLabels" $v.podLabels
      "metrics.serviceMonitor.labels" $v.metrics.serviceMonitor.labels
      "metrics.prometheusRule.labels" $v.metrics.prometheusRule.labels -}}
{{- range $label, $_ := $labels -}}
{{- if or (hasKey (fromYaml (include "ota.labels" (list $ "server"))) $label | and (ne $value "commonLabels")) (hasKey (fromYaml (include "ota.ownLabels" (list $ "server"))) $label) -}}
{{- $problems = append $problems (printf "%s: %s is there already; leave it out" $value $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $value, $names := dict
      "extraVolumes" (list "name" (include "ota.volumes" .))
      "extraVolumeMounts" (list "mountPath" (include "ota.mounts" .))
      "extraContainers" (list "name" (toYaml (concat (list (dict "name" "ota-server") (dict "name" "migrate")) $v.extraContainers $v.initContainers))) -}}
{{- $seen := dict -}}
{{- range fromYamlArray (index $names 1) -}}
{{- $name := get . (index $names 0) -}}
{{- if hasKey $seen $name -}}
{{- $problems = append $problems (printf "%s: %s is there already; choose another %s" $value $name (index $names 0)) -}}
{{- end -}}
{{- $_ := set $seen $name true -}}
{{- end -}}
{{- end -}}
{{- toYaml $problems -}}
{{- end -}}
