"""What happens around every request: API keys, rate limits, cross-origin rules, request ids, access log."""
