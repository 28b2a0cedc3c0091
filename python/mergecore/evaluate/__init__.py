"""What a merged model answers, and whether the answers are sound: stages that read and write files."""
