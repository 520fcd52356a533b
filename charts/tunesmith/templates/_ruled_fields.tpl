{{/* Generated from src/tunesmith/api by `make generate`; do not edit. */}}
{{- define "tunesmith.admission.finetunejobs" -}}
- name: uris
  expression: |-
    (
      [?object.spec.?output.?uri] +
      [?object.spec.?model.?uri] +
      [?object.spec.?model.?adapterUri] +
      [?object.spec.?model.?chatTemplate.?uri] +
      object.spec.?compareWith.orValue([]).map(x, x.?uri.hasValue(), x.?uri.value()) +
      object.spec.?compareWith.orValue([]).map(x, x.?adapterUri.hasValue(), x.?adapterUri.value()) +
      object.spec.?compareWith.orValue([]).map(x, x.?chatTemplate.?uri.hasValue(), x.?chatTemplate.?uri.value()) +
      object.spec.?datasets.orValue([]).map(x, x.?uri.hasValue(), x.?uri.value()) +
      object.spec.?datasets.orValue([]).map(x, x.?sampled.?articlesUri.hasValue(), x.?sampled.?articlesUri.value()) +
      object.spec.?datasets.orValue([]).map(x, x.?sampled.?changedArticlesUri.hasValue(), x.?sampled.?changedArticlesUri.value()) +
      [?object.spec.?validation.?uri] +
      [?object.spec.?validation.?sampled.?articlesUri] +
      [?object.spec.?validation.?sampled.?changedArticlesUri] +
      object.spec.?evaluation.orValue([]).map(x, x.?prompts.?uri.hasValue(), x.?prompts.?uri.value()) +
      object.spec.?evaluation.orValue([]).map(x, x.?prompts.?legalJudgement.?articlesUri.hasValue(), x.?prompts.?legalJudgement.?articlesUri.value()) +
      object.spec.?evaluation.orValue([]).map(x, x.?prompts.?legalJudgement.?changedArticlesUri.hasValue(), x.?prompts.?legalJudgement.?changedArticlesUri.value())
    ).map(x, !(!x.matches(r'^(?:file://)?/(?:\.?/)*(?:proc|sys|dev|run|var/(?:\.?/)*run)(?:/|$)') && variables.rules.exists(r, x.matches(r.uris))), 'address ' + x)
- name: endpoints
  expression: |-
    (
      [?object.spec.?storage.?endpointUrl] +
      [?object.spec.?hub.?endpoint] +
      (object.spec.?tracking.?wandb.hasValue() ? [object.spec.?tracking.?wandb.?baseUrl.orValue('https://api.wandb.ai')] : []) +
      [?object.spec.?tracking.?mlflow.?trackingUri]
    ).map(x, !(variables.rules.exists(r, x.matches(r.endpoints))), 'endpoint ' + x)
- name: secrets
  expression: |-
    (
      [?object.spec.?storage.?secretRef.?name] +
      [?object.spec.?hub.?tokenSecretRef.?name] +
      [?object.spec.?tracking.?wandb.?apiKeySecretRef.?name] +
      [?object.spec.?tracking.?mlflow.?secretRef.?name]
    ).map(x, !(variables.rules.exists(r, x.matches(r.secrets))), 'Secret ' + x)
- name: runtimes
  expression: |-
    (
      [?object.spec.?runtime]
    ).map(x, !(variables.rules.exists(r, x.matches(r.runtimes))), 'runtime ' + x)
- name: remoteCode
  expression: |-
    (
      (object.spec.?model.?trustRemoteCode.orValue(false) ? [object.spec.?model.?uri.orValue('of another job')] : []) +
      object.spec.?compareWith.orValue([]).map(x, x.?trustRemoteCode.orValue(false), x.?uri.orValue('of another job'))
    ).map(x, !(variables.rules.exists(r, x.matches(r.remoteCode))), 'code of model ' + x + ' (trustRemoteCode)')
- name: pythonModules
  expression: |-
    (
      object.spec.?evaluation.orValue([]).map(x, x.?verifier.?python.?function.hasValue(), x.?verifier.?python.?function.value())
    ).map(x, !(variables.rules.exists(r, x.matches(r.pythonModules))), 'Python function ' + x)
- name: priorityClasses
  expression: |-
    (
      [?object.spec.?placement.?priorityClassName]
    ).map(x, !(variables.rules.exists(r, x.matches(x.startsWith('system-') ? r.systemPriorityClasses : r.priorityClasses))), 'priority class ' + x)
- name: tolerations
  expression: |-
    (
      object.spec.?placement.?tolerations.orValue([]).map(x, true, x.?key.orValue(''))
    ).map(x, !(variables.rules.exists(r, x.matches(r.tolerations))), "toleration of key '" + x + "'")
- name: nodeSelectors
  expression: |-
    (
      object.spec.?placement.?nodeSelector.orValue({}).map(x, x)
    ).map(x, !(variables.rules.exists(r, x.matches(r.nodeSelectors))), 'node label ' + x)
- name: refused
  expression: |-
    variables.uris + variables.endpoints + variables.secrets + variables.runtimes + variables.remoteCode + variables.pythonModules + variables.priorityClasses + variables.tolerations + variables.nodeSelectors
{{- end -}}
{{- define "tunesmith.admission.rejectionsamplejobs" -}}
- name: uris
  expression: |-
    (
      [?object.spec.?output.?uri] +
      [?object.spec.?model.?uri] +
      [?object.spec.?model.?adapterUri] +
      [?object.spec.?model.?chatTemplate.?uri] +
      [?object.spec.?prompts.?uri] +
      [?object.spec.?prompts.?legalJudgement.?articlesUri] +
      [?object.spec.?prompts.?legalJudgement.?changedArticlesUri]
    ).map(x, !(!x.matches(r'^(?:file://)?/(?:\.?/)*(?:proc|sys|dev|run|var/(?:\.?/)*run)(?:/|$)') && variables.rules.exists(r, x.matches(r.uris))), 'address ' + x)
- name: endpoints
  expression: |-
    (
      [?object.spec.?storage.?endpointUrl] +
      [?object.spec.?hub.?endpoint] +
      (object.spec.?tracking.?wandb.hasValue() ? [object.spec.?tracking.?wandb.?baseUrl.orValue('https://api.wandb.ai')] : []) +
      [?object.spec.?tracking.?mlflow.?trackingUri]
    ).map(x, !(variables.rules.exists(r, x.matches(r.endpoints))), 'endpoint ' + x)
- name: secrets
  expression: |-
    (
      [?object.spec.?storage.?secretRef.?name] +
      [?object.spec.?hub.?tokenSecretRef.?name] +
      [?object.spec.?tracking.?wandb.?apiKeySecretRef.?name] +
      [?object.spec.?tracking.?mlflow.?secretRef.?name]
    ).map(x, !(variables.rules.exists(r, x.matches(r.secrets))), 'Secret ' + x)
- name: runtimes
  expression: |-
    (
      [?object.spec.?runtime]
    ).map(x, !(variables.rules.exists(r, x.matches(r.runtimes))), 'runtime ' + x)
- name: remoteCode
  expression: |-
    (
      (object.spec.?model.?trustRemoteCode.orValue(false) ? [object.spec.?model.?uri.orValue('of another job')] : [])
    ).map(x, !(variables.rules.exists(r, x.matches(r.remoteCode))), 'code of model ' + x + ' (trustRemoteCode)')
- name: pythonModules
  expression: |-
    (
      [?object.spec.?verifier.?python.?function]
    ).map(x, !(variables.rules.exists(r, x.matches(r.pythonModules))), 'Python function ' + x)
- name: priorityClasses
  expression: |-
    (
      [?object.spec.?placement.?priorityClassName]
    ).map(x, !(variables.rules.exists(r, x.matches(x.startsWith('system-') ? r.systemPriorityClasses : r.priorityClasses))), 'priority class ' + x)
- name: tolerations
  expression: |-
    (
      object.spec.?placement.?tolerations.orValue([]).map(x, true, x.?key.orValue(''))
    ).map(x, !(variables.rules.exists(r, x.matches(r.tolerations))), "toleration of key '" + x + "'")
- name: nodeSelectors
  expression: |-
    (
      object.spec.?placement.?nodeSelector.orValue({}).map(x, x)
    ).map(x, !(variables.rules.exists(r, x.matches(r.nodeSelectors))), 'node label ' + x)
- name: refused
  expression: |-
    variables.uris + variables.endpoints + variables.secrets + variables.runtimes + variables.remoteCode + variables.pythonModules + variables.priorityClasses + variables.tolerations + variables.nodeSelectors
{{- end -}}
{{- define "tunesmith.admission.dialoguegenjobs" -}}
- name: uris
  expression: |-
    (
      [?object.spec.?output.?uri] +
      [?object.spec.?seeds.?uri] +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?vllm.?model.?uri.hasValue(), object.spec.endpoints[x].?vllm.?model.?uri.value()) +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?vllm.?model.?adapterUri.hasValue(), object.spec.endpoints[x].?vllm.?model.?adapterUri.value()) +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?vllm.?model.?chatTemplate.?uri.hasValue(), object.spec.endpoints[x].?vllm.?model.?chatTemplate.?uri.value()) +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?transformers.?model.?uri.hasValue(), object.spec.endpoints[x].?transformers.?model.?uri.value()) +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?transformers.?model.?adapterUri.hasValue(), object.spec.endpoints[x].?transformers.?model.?adapterUri.value()) +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?transformers.?model.?chatTemplate.?uri.hasValue(), object.spec.endpoints[x].?transformers.?model.?chatTemplate.?uri.value()) +
      [?object.spec.?roles.?question.?promptUri] +
      [?object.spec.?roles.?answer.?promptUri] +
      [?object.spec.?roles.?correction.?promptUri]
    ).map(x, !(!x.matches(r'^(?:file://)?/(?:\.?/)*(?:proc|sys|dev|run|var/(?:\.?/)*run)(?:/|$)') && variables.rules.exists(r, x.matches(r.uris))), 'address ' + x)
- name: endpoints
  expression: |-
    (
      [?object.spec.?storage.?endpointUrl] +
      [?object.spec.?hub.?endpoint] +
      (object.spec.?tracking.?wandb.hasValue() ? [object.spec.?tracking.?wandb.?baseUrl.orValue('https://api.wandb.ai')] : []) +
      [?object.spec.?tracking.?mlflow.?trackingUri] +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?openai.?baseUrl.hasValue(), object.spec.endpoints[x].?openai.?baseUrl.value())
    ).map(x, !(variables.rules.exists(r, x.matches(r.endpoints))), 'endpoint ' + x)
- name: secrets
  expression: |-
    (
      [?object.spec.?storage.?secretRef.?name] +
      [?object.spec.?hub.?tokenSecretRef.?name] +
      [?object.spec.?tracking.?wandb.?apiKeySecretRef.?name] +
      [?object.spec.?tracking.?mlflow.?secretRef.?name] +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?openai.?apiKeySecretRef.?name.hasValue(), object.spec.endpoints[x].?openai.?apiKeySecretRef.?name.value())
    ).map(x, !(variables.rules.exists(r, x.matches(r.secrets))), 'Secret ' + x)
- name: runtimes
  expression: |-
    (
      [?object.spec.?runtime]
    ).map(x, !(variables.rules.exists(r, x.matches(r.runtimes))), 'runtime ' + x)
- name: remoteCode
  expression: |-
    (
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?vllm.?model.?trustRemoteCode.orValue(false), object.spec.endpoints[x].?vllm.?model.?uri.orValue('of another job')) +
      object.spec.?endpoints.orValue({}).map(x, object.spec.endpoints[x].?transformers.?model.?trustRemoteCode.orValue(false), object.spec.endpoints[x].?transformers.?model.?uri.orValue('of another job'))
    ).map(x, !(variables.rules.exists(r, x.matches(r.remoteCode))), 'code of model ' + x + ' (trustRemoteCode)')
- name: priorityClasses
  expression: |-
    (
      [?object.spec.?placement.?priorityClassName]
    ).map(x, !(variables.rules.exists(r, x.matches(x.startsWith('system-') ? r.systemPriorityClasses : r.priorityClasses))), 'priority class ' + x)
- name: tolerations
  expression: |-
    (
      object.spec.?placement.?tolerations.orValue([]).map(x, true, x.?key.orValue(''))
    ).map(x, !(variables.rules.exists(r, x.matches(r.tolerations))), "toleration of key '" + x + "'")
- name: nodeSelectors
  expression: |-
    (
      object.spec.?placement.?nodeSelector.orValue({}).map(x, x)
    ).map(x, !(variables.rules.exists(r, x.matches(r.nodeSelectors))), 'node label ' + x)
- name: refused
  expression: |-
    variables.uris + variables.endpoints + variables.secrets + variables.runtimes + variables.remoteCode + variables.priorityClasses + variables.tolerations + variables.nodeSelectors
{{- end -}}
