"""`nosana-fetch`: downloads S3, Hugging Face and Ollama resources into folders before an op starts.

It runs as an init container from a separate image with the optional extra `fetch`, and knows nothing about
Kubernetes or job definitions.
"""
