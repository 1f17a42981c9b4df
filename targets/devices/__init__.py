"""The host's side of a device: transports (push, run, pull) and the jobs that go over them."""
