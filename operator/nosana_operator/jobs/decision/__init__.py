"""What the job controller decides: a frozen view → effects. Pure."""
