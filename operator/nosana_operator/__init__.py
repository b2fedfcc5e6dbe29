"""Makes a Kubernetes cluster a host on the Nosana GPU marketplace."""
