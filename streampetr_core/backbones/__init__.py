"""Image backbones: each maps normalised images to feature maps of stride 16 and 32."""
