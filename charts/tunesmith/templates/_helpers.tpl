{{- define "tunesmith.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tunesmith.operator" -}}
{{- include "tunesmith.fullname" . }}-operator
{{- end -}}

{{/* Job pods are named "tunesmith"; the operator must not match their selector. */}}
{{- define "tunesmith.selector" -}}
app.kubernetes.io/name: tunesmith-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tunesmith.labels" -}}
{{ include "tunesmith.selector" . }}
{{ include "tunesmith.commonLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Those of every object and pod of the release. */}}
{{- define "tunesmith.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tunesmith
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Of `helm test`, whose pod no selector of the operator may match. */}}
{{- define "tunesmith.testLabels" -}}
app.kubernetes.io/name: tunesmith-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "tunesmith.commonLabels" . }}
app.kubernetes.io/component: test
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tunesmith.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tunesmith.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed if serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* An image (`.image`) with the registry before it, unless it names one. */}}
{{- define "tunesmith.inRegistry" -}}
{{- if and .registry (not (contains "/" .image)) -}}{{ .registry }}/{{ end }}{{ .image -}}
{{- end -}}

{{- define "tunesmith.image" -}}
{{- $image := .Values.image -}}
{{- include "tunesmith.inRegistry" (dict "registry" .Values.registry "image" $image.repository) -}}
{{- if $image.digest -}}
{{ with $image.tag }}:{{ . }}{{ end }}@{{ $image.digest }}
{{- else -}}
:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{/* The runtimes as JSON, their images with the registry. */}}
{{- define "tunesmith.runtimes" -}}
{{- $found := dict -}}
{{- range $name, $runtime := .Values.runtimes -}}
{{- $asMap := kindIs "map" $runtime | ternary $runtime (dict "image" $runtime) -}}
{{- $image := include "tunesmith.inRegistry" (dict "registry" $.Values.registry "image" $asMap.image) -}}
{{- $_ := set $found $name (kindIs "map" $runtime | ternary (merge (dict "image" $image) $asMap) $image) -}}
{{- end -}}
{{- toRawJson $found -}}
{{- end -}}

{{/* Namespaces whose jobs the operator manages, as JSON; an empty list means all. */}}
{{- define "tunesmith.namespaces" -}}
{{- $own := .Values.rbac.namespaced | ternary (list .Release.Namespace) list -}}
{{- default $own .Values.namespaces | uniq | toJson -}}
{{- end -}}

{{/* Namespaces that must exist before anything is applied, as JSON. --create-namespace creates the release's own. */}}
{{- define "tunesmith.neededNamespaces" -}}
{{- without (concat .Values.jobNamespaces .Values.namespaces | uniq) .Release.Namespace | toJson -}}
{{- end -}}

{{/* Fails if one of them is missing: Helm would fail half-way, and leave a failed release. Looks only if the
     cluster is reachable (not in `helm template`) and for users who may create ClusterRoles and so read namespaces. */}}
{{- define "tunesmith.requireNamespaces" -}}
{{- if and .Values.rbac.create (not .Values.rbac.namespaced) (lookup "v1" "Namespace" "" "kube-system") -}}
{{- range include "tunesmith.neededNamespaces" . | fromJsonArray -}}
{{- if not (lookup "v1" "Namespace" "" .) -}}
{{- printf "namespace %s does not exist; nothing was changed. Create it: kubectl create namespace %s" . . | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" if the service account of job pods is in a namespace (`.namespace`) without being Helm's. It is used as it
     is: Helm refuses to adopt what it has not created. */}}
{{- define "tunesmith.accountMadeByHand" -}}
{{- $account := lookup "v1" "ServiceAccount" .namespace .root.Values.jobServiceAccount.name -}}
{{- if and $account (ne (dig "metadata" "labels" "app.kubernetes.io/managed-by" "" $account) "Helm") -}}true{{- end -}}
{{- end -}}

{{/* Fails for a pod template that undoes what keeps pods restricted, as the operator would at its start; the lists are
     those of plan/runtimes.py. */}}
{{- define "tunesmith.requireRestricted" -}}
{{- range $name, $runtime := .Values.runtimes -}}
{{- if and (kindIs "map" $runtime) (not (dig "allowPrivileged" false $runtime)) -}}
{{- $pod := dig "podTemplate" "spec" dict $runtime -}}
{{- $where := printf "runtimes.%s.podTemplate.spec" $name -}}
{{- range $key := list "hostIPC" "hostPID" "hostUsers" -}}
{{- if hasKey $pod $key -}}{{- include "tunesmith.notRestricted" (printf "%s.%s" $where $key) -}}{{- end -}}
{{- end -}}
{{- include "tunesmith.requireHarmless" (dict "context" $pod.securityContext "where" $where) -}}
{{- range $kind := list "containers" "initContainers" -}}
{{- range $number, $container := dig $kind list $pod -}}
{{- $here := printf "%s.%s[%d]" $where $kind $number -}}
{{- include "tunesmith.requireHarmless" (dict "context" $container.securityContext "where" $here) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tunesmith.requireHarmless" -}}
{{- $harmless := list "fsGroupChangePolicy" "seLinuxOptions" "supplementalGroups" "supplementalGroupsPolicy" -}}
{{- $restricted := dict "runAsNonRoot" true "readOnlyRootFilesystem" true "allowPrivilegeEscalation" false -}}
{{- $_ := set $restricted "capabilities" (dict "drop" (list "ALL")) -}}
{{- range $key, $value := .context -}}
{{- $kept := and (hasKey $restricted $key) (eq (toJson $value) (toJson (get $restricted $key))) -}}
{{- if not (or (has $key $harmless) $kept) -}}
{{- include "tunesmith.notRestricted" (printf "%s.securityContext.%s" $.where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tunesmith.notRestricted" -}}
{{- printf "%s undoes what keeps pods restricted; set allowPrivileged: true if that is meant" . | fail -}}
{{- end -}}

{{/* Kubernetes replaces $(NAME) in the value of a variable; $$( stands for the plain text. */}}
{{- define "tunesmith.literal" -}}
{{- . | replace "$(" "$$(" | quote -}}
{{- end -}}

{{/* All rights of the operator. */}}
{{- define "tunesmith.rules" -}}
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs, rejectionsamplejobs, dialoguegenjobs]
  verbs: [get, list, watch, patch]
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs/status, rejectionsamplejobs/status, dialoguegenjobs/status]
  verbs: [patch]
# Required to set owner references if they are checked (OpenShift).
- apiGroups: [tunesmith.dev]
  resources: [finetunejobs/finalizers, rejectionsamplejobs/finalizers, dialoguegenjobs/finalizers]
  verbs: [update]
# The objects that make the pods of attempts, whichever of the two the cluster serves.
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [trainer.kubeflow.org]
  resources: [trainjobs]
  verbs: [get, list, watch, create, patch, delete]
# Read before a TrainJob is created, to say what its runtime lacks.
- apiGroups: [trainer.kubeflow.org]
  resources: [clustertrainingruntimes, trainingruntimes]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Listed to explain why an attempt does not start.
- apiGroups: [""]
  resources: [events]
  verbs: [create, list]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
{{- end -}}

{{/* "true" if the metrics of jobs are scraped by a PodMonitor. */}}
{{- define "tunesmith.podMonitor" -}}
{{- $wanted := toString .Values.metrics.podMonitor.enabled -}}
{{- $served := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor" -}}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") $served) -}}true{{- end -}}
{{- end -}}
