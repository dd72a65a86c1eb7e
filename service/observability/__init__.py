"""Logs, Prometheus metrics, OpenTelemetry traces, and the last minute's figures for /v1/status."""
