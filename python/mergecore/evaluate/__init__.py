"""What does a merged model answer, and is it sound? Stages that read and write files."""
