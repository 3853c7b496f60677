"""What features and runs tell about the data: feature choice, learning curves, oddities."""
