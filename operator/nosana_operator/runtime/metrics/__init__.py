"""What Prometheus scrapes: each family is declared once, and its page is written from the declarations."""
