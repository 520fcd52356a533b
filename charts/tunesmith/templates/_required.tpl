{{/* Fails for what the operator would refuse at its start, in its words, or the API server half-way. */}}
{{- define "tunesmith.requireValues" -}}
{{- range $value := list "copyLabels" "copyAnnotations" -}}
{{- range $key := get $.Values $value -}}
{{- if regexMatch "^([*?]*$|tunesmith\\.dev/|app\\.kubernetes\\.io/(name|managed-by))" $key -}}
{{- printf "%s: %s is no key of a user's: the operator sets those of tunesmith.dev itself" $value $key | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.enabled (eq (int .Values.port) (int .Values.metrics.port)) -}}
{{- fail "port and metrics.port must differ" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if has .name (include "tunesmith.ownVariables" . | splitList " ") -}}
{{- printf "extraEnv: the chart sets %s itself, from its other values" .name | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The variables that the operator's Deployment has anyway. */}}
{{- define "tunesmith.ownVariables" -}}
TUNESMITH_RUNTIMES TUNESMITH_BACKEND TUNESMITH_TRAINING_RUNTIME TUNESMITH_COPY_LABELS TUNESMITH_COPY_ANNOTATIONS TUNESMITH_ALLOWED TUNESMITH_NAMESPACES TUNESMITH_UPGRADE TUNESMITH_RELEASE TUNESMITH_JOB_SERVICE_ACCOUNT TUNESMITH_PORT TUNESMITH_METRICS_PORT
{{- end -}}

{{/* Fails for what a pod template may not set, of a pod or of the job's container; the lists are those of
     plan/runtimes.py. */}}
{{- define "tunesmith.requireKnownKeys" -}}
{{- $ofPods := splitList " " "affinity containers dnsConfig dnsPolicy hostAliases hostNetwork imagePullSecrets initContainers nodeSelector preemptionPolicy priorityClassName resourceClaims runtimeClassName schedulerName schedulingGates securityContext tolerations topologySpreadConstraints volumes hostIPC hostPID hostUsers" -}}
{{- $ofContainer := list "env" "envFrom" "imagePullPolicy" "name" "ports" "resources" "securityContext" "volumeDevices" "volumeMounts" -}}
{{- range $name, $runtime := .Values.runtimes -}}
{{- if kindIs "map" $runtime -}}
{{- $pod := dig "podTemplate" "spec" dict $runtime -}}
{{- $where := printf "runtimes.%s.podTemplate.spec" $name -}}
{{- range $key, $_ := $pod -}}
{{- if not (has $key $ofPods) -}}{{- printf "%s.%s is not for a runtime to set" $where $key | fail -}}{{- end -}}
{{- end -}}
{{- range $number, $container := $pod.containers -}}
{{- range $key, $_ := $container -}}
{{- if and (has $container.name (list "pytorch" "node")) (not (has $key $ofContainer)) -}}
{{- printf "%s.containers[%d].%s is not for a runtime to set" $where $number $key | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
