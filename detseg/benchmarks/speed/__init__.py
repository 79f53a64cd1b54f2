"""Compare the speed with a baseline of torchvision, PIL and pycocotools, side by side."""
