"""What happens to bytes before they are a request or a message: bounded reads, in turns, on bounded connections."""
