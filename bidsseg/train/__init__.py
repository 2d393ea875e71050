"""Training of the network: data, synthesis of scans, losses and the loop."""
