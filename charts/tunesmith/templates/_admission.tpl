{{/*
The rules of `allowed` as JSON for CEL: a list of rules, each a map of regular expressions that match what the
rule allows, as written in a manifest. values.schema.json bounds what is turned into expressions here.
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

{{/* An expression for names that match any of some shell patterns as a whole; without patterns, none. */}}
{{- define "tunesmith.admission.names" -}}
{{- if . -}}
(?s)^(?:{{ join "|" . | replace "." "\\." | replace "*" ".*" | replace "?" "." | replace "[!" "[^" }})$
{{- else -}}
$.
{{- end -}}
{{- end -}}

{{/* An expression for values with any of some prefixes; `as` is the template of one. Without prefixes, none. */}}
{{- define "tunesmith.admission.any" -}}
{{- $as := printf "tunesmith.admission.%s" .as -}}
{{- $parts := list -}}
{{- range .of }}{{ $parts = append $parts (include $as .) }}{{ end -}}
{{- if $parts }}^(?:{{ join "|" $parts }}){{ else }}$.{{ end -}}
{{- end -}}

{{/* Files by their path, with or without file://; other addresses as they are. */}}
{{- define "tunesmith.admission.uri" -}}
{{- if eq . "*" -}}
s3://|hf://
{{- else if regexMatch "^(file://)?/" . -}}
(?:file://)?{{ trimPrefix "file://" . | include "tunesmith.admission.path" }}(?:/|$)
{{- else -}}
{{ regexReplaceAll "/+$" . "" | regexQuoteMeta }}{{ hasPrefix "hf://datasets/" . | ternary "(?:[/@]|$)" "(?:/|$)" }}
{{- end -}}
{{- end -}}

{{- define "tunesmith.admission.model" -}}
{{- if ne . "*" }}{{ include "tunesmith.admission.uri" . }}{{ end -}}
{{- end -}}

{{- define "tunesmith.admission.module" -}}
{{ regexQuoteMeta . }}[.:]
{{- end -}}

{{/* Hosts match in any case, with a trailing dot and without the default port. */}}
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

{{/* A normalised path, with every spelling of each slash. */}}
{{- define "tunesmith.admission.path" -}}
{{- clean (printf "/%s" .) | trimSuffix "/" | replace "." "\\." | replace "/" "/(?:\\.?/)*" -}}
{{- end -}}
