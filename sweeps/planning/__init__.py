"""What is to be trained, in which order, and what it costs. Knows the records; knows no Ray and no MLflow."""
