"""The server: one process that talks to clients and keeps the jobs, and one worker process for each job."""
