"""Boxes of objects as labels: COCO's JSON, YOLO's text files, Ultralytics' data.yaml."""
