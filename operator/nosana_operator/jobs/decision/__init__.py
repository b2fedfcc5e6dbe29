"""The decisions of the job controller: a frozen view → effects. Pure."""
