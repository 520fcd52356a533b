"""`tunesmith preview`: what a job would do, shown before anything is trained, sampled or sent. No torch."""
