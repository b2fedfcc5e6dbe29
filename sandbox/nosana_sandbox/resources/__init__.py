"""Stand-in servers for S3, the Hugging Face Hub and Ollama's registry, for job definitions with resources."""
