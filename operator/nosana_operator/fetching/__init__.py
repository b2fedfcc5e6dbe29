"""`nosana-fetch`: S3, Hugging Face and Ollama resources into folders, before an op starts.

Runs in a container of its own, from an image of its own, with the optional extra `fetch`; knows nothing of
Kubernetes or of job definitions.
"""
