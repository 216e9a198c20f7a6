"""What a retrained network says of images without labels."""
