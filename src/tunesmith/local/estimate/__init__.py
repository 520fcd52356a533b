"""`tunesmith estimate`: what a job will need, before anything is paid."""
