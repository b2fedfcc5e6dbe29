{{- define "nosana-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters, so that suffixes fit; the release's name alone where it says what this is. */}}
{{- define "nosana-operator.fullname" -}}
{{- $name := include "nosana-operator.name" . }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if contains $name .Release.Name }}{{ $full = .Release.Name }}{{ end }}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "nosana-operator.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "nosana-operator.serviceAccount" -}}
{{- default (ternary (include "nosana-operator.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* What a pod of the operator is known by; fixed, as a Deployment's selector cannot be changed. */}}
{{- define "nosana-operator.selector" -}}
app.kubernetes.io/name: {{ include "nosana-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Of every object; those of the chart win over the admin's. */}}
{{- define "nosana-operator.labels" -}}
{{- include "nosana-operator.own" . | fromYaml | merge (dict "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") "app.kubernetes.io/managed-by" .Release.Service) | toYaml }}
{{- end }}

{{/* Of pods: without what changes with each version of the chart, so that it alone restarts none. */}}
{{- define "nosana-operator.podLabels" -}}
{{- $fixed := include "nosana-operator.selector" . | fromYaml }}
{{- merge $fixed (include "nosana-operator.own" . | fromYaml) .Values.podLabels | toYaml }}
{{- end }}

{{- define "nosana-operator.own" -}}
{{- $own := dict "app.kubernetes.io/name" (include "nosana-operator.name" .) "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "nosana-operator" }}
{{- merge $own .Values.commonLabels | toYaml }}
{{- end }}

{{- define "nosana-operator.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}
{{- else }}{{ printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "nosana-operator.port" -}}
{{- dig "metrics" "port" 8080 .Values.settings | int }}
{{- end }}

{{/* The settings file: what the admin says, and the namespaces, which the roles go by too. */}}
{{- define "nosana-operator.settings" -}}
{{- $settings := deepCopy .Values.settings }}
{{- with .Values.watchNamespaces }}{{ $_ := set $settings "watchNamespaces" . }}{{ end }}
{{- toYaml $settings }}
{{- end }}

{{/* Of every pod that runs the operator's program: settings and tokens, read-only, and a /tmp. */}}
{{- define "nosana-operator.volumeMounts" -}}
- name: settings
  mountPath: /etc/nosana/settings
  readOnly: true
{{- range $index, $secret := .Values.secrets }}
- name: secret-{{ $index }}
  mountPath: /etc/nosana/secrets/{{ $secret }}
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "nosana-operator.volumes" -}}
- name: settings
  {{- if .Values.settingsSecret.name }}
  secret:
    secretName: {{ .Values.settingsSecret.name }}
    items:
      - key: {{ .Values.settingsSecret.key }}
        path: settings.yaml
  {{- else }}
  configMap:
    name: {{ include "nosana-operator.fullname" . }}
  {{- end }}
{{- range $index, $secret := .Values.secrets }}
- name: secret-{{ $index }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
- name: tmp
  emptyDir: {}
{{- end }}

{{/* Settings in a Secret do not hold the namespaces that the roles go by. */}}
{{- define "nosana-operator.scope" -}}
{{- if .Values.settingsSecret.name }}
{{- range .Values.watchNamespaces }}
- --namespace={{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the Prometheus operator's kinds are rendered. */}}
{{- define "nosana-operator.monitors" -}}
{{- $mode := .Values.metrics.renderMode }}
{{- $served := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
{{- if and (eq $mode "failIfMissing") (not $served) }}
{{- fail "The cluster does not serve monitoring.coreos.com/v1: install the Prometheus operator, or set metrics.renderMode to skipIfMissing." }}
{{- end }}
{{- if or $served (eq $mode "alwaysRender") }}true{{ end }}
{{- end }}

{{/* Whether NosanaMarkets are rendered. Helm looks up every kind before it makes anything, so that one can not
     come with its CRD; only a look at the cluster tells, and without a cluster they are. */}}
{{- define "nosana-operator.makesMarkets" -}}
{{- $asksCluster := lookup "v1" "Namespace" "" "kube-system" }}
{{- if and .Values.markets (or (not $asksCluster) (.Capabilities.APIVersions.Has "nosana.io/v1alpha1/NosanaMarket")) }}true{{ end }}
{{- end }}

{{/* Mistakes that no schema sees. */}}
{{- define "nosana-operator.check" -}}
{{- if and (gt (int .Values.replicas) 1) (not (include "nosana-operator.lease" . | fromYaml).enabled) }}
{{- fail "replicas: without settings.election all of them would work at once, with the same wallets; enable it, or set 1." }}
{{- end }}
{{- if has (include "nosana-operator.namespace" .) .Values.jobNamespaces.names }}
{{- fail (printf "jobNamespaces.names: %s is the operator's namespace; jobs run strangers' programs and have to be in another one." (include "nosana-operator.namespace" .)) }}
{{- end }}
{{- range .Values.markets }}
{{- if eq .spec.jobNamespace (include "nosana-operator.namespace" $) }}
{{- fail (printf "markets: jobNamespace of %s is the operator's namespace, where the wallets are; name another one." .name) }}
{{- end }}
{{- if and $.Values.watchNamespaces (not (has .spec.jobNamespace $.Values.watchNamespaces)) }}
{{- fail (printf "markets: jobNamespace %s of %s is not in watchNamespaces; add it." .spec.jobNamespace .name) }}
{{- end }}
{{- if and $.Values.watchNamespaces (not (has (include "nosana-operator.namespace" $) $.Values.watchNamespaces)) }}
{{- fail (printf "markets: the namespace %s, in which they are made, is not in watchNamespaces; add it." (include "nosana-operator.namespace" $)) }}
{{- end }}
{{- end }}
{{- end }}
