"""How it is run and reached: command line, worker, listeners, local stack, provisioning, benchmark."""
