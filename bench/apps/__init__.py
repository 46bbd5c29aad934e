"""Programs that the peers serve, each as its users would write it. Import nothing of the bench."""
