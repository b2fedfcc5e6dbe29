{{/* A template of its own, so that tests can render it. */}}
{{- define "nosana-operator.notes" -}}
{{- $name := include "nosana-operator.fullname" . }}
{{- $namespace := include "nosana-operator.namespace" . }}
{{- $place := first (without .Values.watchNamespaces $namespace) | default "default" }}
{{- $networks := keys (.Values.settings.networks | default dict) | sortAlpha }}
The operator is {{ $name }} in namespace {{ $namespace }}; it serves {{ if .Values.watchNamespaces }}namespaces {{ join ", " .Values.watchNamespaces }}{{ else }}all namespaces{{ end }}.

Look whether all is well, and what to do where it is not:

  helm test {{ .Release.Name }} --namespace {{ .Release.Namespace }} --logs

Run a private job, on no chain:

kubectl apply -f - <<END
apiVersion: nosana.io/v1alpha1
kind: NosanaJob
metadata: {name: hello, namespace: {{ $place }}}
spec:
  definition:
    {version: "0.1", type: container, ops: [{type: container/run, id: hello, args: {image: ubuntu, cmd: [echo, hello]}}]}
END
kubectl wait nosanajob/hello --namespace {{ $place }} --for=condition=Complete

{{- if and .Values.markets (include "nosana-operator.makesMarkets" . | not) }}

Not done yet: {{ len .Values.markets }} of `markets` could not be made, because the kind NosanaMarket came with this
install. Run the same once more:

  helm upgrade {{ .Release.Name }} --namespace {{ .Release.Namespace }} … (with the same values)
{{- else if .Values.markets }}

The markets, and what their wallets lack:

  kubectl get nosanamarkets --namespace {{ $namespace }}
  kubectl describe nosanamarkets --namespace {{ $namespace }}
{{- else }}

Offer GPUs in a market:
{{ if not (or $networks .Values.settingsSecret.name) }}
  - name its network in `settings.networks`: an RPC endpoint, IPFS gateways, and where results are pinned
{{- end }}
  - put the key that stands in it, as Solana tools write it, into a Secret:
      kubectl create secret generic host-key --namespace {{ $namespace }} --from-file=id.json=KEYPAIR_FILE
  - add to the values, and upgrade:
      markets:
        - name: my-market
          spec:
            address: ADDRESS_OF_THE_MARKET
            network: {{ first $networks | default "mainnet" }}
            jobNamespace: {{ first .Values.jobNamespaces.names | default "nosana-jobs" }}
            wallets: [{secretRef: {name: host-key}}]
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (not .Values.podDisruptionBudget.enabled) }}

There is no disruption budget: a drain may take all replicas at once.
{{- end }}
{{- end }}
