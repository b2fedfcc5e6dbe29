"""Servers that speak as S3, the Hugging Face Hub and Ollama's registry do, for definitions with resources."""
