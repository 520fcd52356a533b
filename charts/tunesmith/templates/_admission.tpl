{{/*
The rules of `allowed` as JSON that CEL reads: a list of rules, each a map of regular expressions that match what the
rule allows, as a manifest writes it. values.schema.json bounds what is turned into expressions here.
*/}}
{{- define "tunesmith.admission.rules" -}}
{{- $rules := list -}}
{{- range $given := .Values.allowed | default (list (dict "uris" (list "*"))) -}}
{{- $rule := dict -}}
{{- range $name := list "namespaces" "secrets" "runtimes" "priorityClasses" "tolerations" "nodeSelectors" -}}
{{- $patterns := hasKey $given $name | ternary (get $given $name) (list "*") -}}
{{- $_ := set $rule $name (include "tunesmith.admission.names" $patterns) -}}
{{- end -}}
{{- $system := list -}}
{{- range $given.priorityClasses }}{{ if hasPrefix "system-" . }}{{ $system = append $system . }}{{ end }}{{ end -}}
{{- $_ := set $rule "systemPriorityClasses" (include "tunesmith.admission.names" $system) -}}
{{- $endpoints := hasKey $given "endpoints" | ternary $given.endpoints (list "*") -}}
{{- $_ := set $rule "endpoints" (include "tunesmith.admission.any" (dict "as" "endpoint" "of" $endpoints)) -}}
{{- $_ := set $rule "uris" (include "tunesmith.admission.any" (dict "as" "uri" "of" $given.uris)) -}}
{{- $_ := set $rule "remoteCode" (include "tunesmith.admission.any" (dict "as" "model" "of" $given.remoteCode)) -}}
{{- $_ := set $rule "pythonModules" (include "tunesmith.admission.any" (dict "as" "module" "of" $given.pythonModules)) -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- $rules | toPrettyJson -}}
{{- end -}}

{{/* Names that one of some shell patterns matches as a whole; none matches nothing. */}}
{{- define "tunesmith.admission.names" -}}
{{- if . -}}
(?s)^(?:{{ join "|" . | replace "." "\\." | replace "*" ".*" | replace "?" "." | replace "[!" "[^" }})$
{{- else -}}
$.
{{- end -}}
{{- end -}}

{{/* What begins as one of some rules says; `as` is the template of one. None matches nothing. */}}
{{- define "tunesmith.admission.any" -}}
{{- $as := printf "tunesmith.admission.%s" .as -}}
{{- $parts := list -}}
{{- range .of }}{{ $parts = append $parts (include $as .) }}{{ end -}}
{{- if $parts }}^(?:{{ join "|" $parts }}){{ else }}$.{{ end -}}
{{- end -}}

{{/* Files by their path, whether it is written with file:// or not; other addresses as they are. */}}
{{- define "tunesmith.admission.uri" -}}
{{- if eq . "*" -}}
s3://|hf://
{{- else if regexMatch "^(file://)?/" . -}}
(?:file://)?{{ trimPrefix "file://" . | include "tunesmith.admission.path" }}(?:/|$)
{{- else -}}
{{ regexReplaceAll "/+$" . "" | regexQuoteMeta }}(?:/|$)
{{- end -}}
{{- end -}}

{{- define "tunesmith.admission.model" -}}
{{- if ne . "*" }}{{ include "tunesmith.admission.uri" . }}{{ end -}}
{{- end -}}

{{- define "tunesmith.admission.module" -}}
{{ regexQuoteMeta . }}[.:]
{{- end -}}

{{/* Hosts are the same in capitals and with a dot at the end, and without the port that goes without saying. */}}
{{- define "tunesmith.admission.endpoint" -}}
{{- if ne . "*" -}}
{{- $url := urlParse . -}}
{{- $host := regexReplaceAll "[.]*(:[0-9]+)?$" $url.host "" -}}
{{- $port := regexFind ":[0-9]+$" $url.host -}}
{{- $usual := eq $url.scheme "https" | ternary ":443" ":80" -}}
{{ $url.scheme }}://(?i:{{ regexQuoteMeta $host }})\.*{{ has $port (list "" $usual) | ternary (printf "(?:%s)?" $usual) $port -}}
{{ include "tunesmith.admission.path" $url.path }}(?:[/?#]|$)
{{- end -}}
{{- end -}}

{{/* A path without dots at its ends, each slash as it may be written. */}}
{{- define "tunesmith.admission.path" -}}
{{- clean (printf "/%s" .) | trimSuffix "/" | replace "." "\\." | replace "/" "/(?:\\.?/)*" -}}
{{- end -}}
