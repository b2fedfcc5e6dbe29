{{/* What the operator does in the namespaces it serves. */}}
{{- define "nosana-operator.rules" -}}
- apiGroups: [nosana.io]
  resources: [nosanajobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [nosana.io]
  resources: [nosanamarkets]
  verbs: [get, list, watch, patch]
- apiGroups: [nosana.io]
  resources: [nosanajobs/status, nosanamarkets/status]
  verbs: [patch]
# Where owner references are guarded (OpenShift), children of a NosanaJob need it.
- apiGroups: [nosana.io]
  resources: [nosanajobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create]
# Wallets, definitions and results are read by name; nothing lists Secrets.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
# Slots are bounded by what the quotas of the jobs' namespaces leave.
- apiGroups: [""]
  resources: [resourcequotas]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, create]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* The Lease by which one of several processes is chosen, as the settings have it. */}}
{{- define "nosana-operator.lease" -}}
{{- $election := .Values.settings.election | default dict }}
enabled: {{ dig "enabled" true $election }}
name: {{ $election.name | default "nosana-operator" }}
namespace: {{ $election.namespace | default (include "nosana-operator.namespace" .) }}
{{- end }}
