"""The record on NATS JetStream: events, status, leases, the work queue."""
