{{/* A pod that runs one command of the operator's program as the operator, to its end.
     Takes a dict: root, component, args. Not selected by the operator's Service, budget or policy. */}}
{{- define "nosana-operator.onePod" -}}
{{- $root := .root }}
metadata:
  labels:
    {{- merge (dict "app.kubernetes.io/component" .component) (include "nosana-operator.own" $root | fromYaml) | toYaml | nindent 4 }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "nosana-operator.serviceAccount" $root }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "nosana-operator.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        {{- range .args }}
        - {{ . }}
        {{- end }}
        - --settings=/etc/nosana/settings/settings.yaml
        {{- with include "nosana-operator.scope" $root }}
        {{- . | nindent 8 }}
        {{- end }}
      {{- with $root.Values.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- include "nosana-operator.volumeMounts" $root | nindent 8 }}
  volumes:
    {{- include "nosana-operator.volumes" $root | nindent 4 }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
