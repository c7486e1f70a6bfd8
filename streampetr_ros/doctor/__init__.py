"""What is wrong with a rig or a bag, before the model is blamed: evidence in, findings with remedies out."""
