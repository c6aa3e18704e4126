// Shrinks an image that is larger than the service takes.
import { ApiError, fetchJson } from "./api.js";

// The longer side of a shrunk image; browsers limit the size of a canvas.
const MAX_SIDE = 4096;
// Of a request's body: headers and other fields of the form.
const FORM_BYTES = 8192;
const MIN_SIDE = 16;
const PAYLOAD_TOO_LARGE = 413;

let limits = null;

async function loadLimits(options) {
  limits ??= await fetchJson("v1/limits", options);
  return limits;
}

// Returns the file of an upload where the service takes it, or else a smaller image, upright as the browser shows it.
export async function shrinkToLimits({ file, url }, options) {
  const { max_upload_bytes: maxUpload, max_pixels: maxPixels } = await loadLimits(options);
  const maxBytes = maxUpload - FORM_BYTES;
  const image = Object.assign(new Image(), { src: url });
  try {
    await image.decode();
  } catch {
    // This browser cannot read the format, but the service may.
    if (file.size <= maxBytes) return file;
    const [size, limit] = [file.size, maxBytes].map((bytes) => bytes.toLocaleString());
    const text = `This image has ${size} bytes, the service takes ${limit}, and this browser cannot shrink its format.`;
    throw new ApiError(text, PAYLOAD_TOO_LARGE);
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  if (file.size <= maxBytes && width * height <= maxPixels) return file;
  let scale = Math.min(1, MAX_SIDE / Math.max(width, height), Math.sqrt(maxPixels / (width * height)));
  for (; ; scale /= Math.SQRT2) {
    const blob = await drawScaled(image, width * scale, height * scale);
    if (!blob) throw new ApiError("This browser cannot shrink an image of this size.", PAYLOAD_TOO_LARGE);
    if (blob.size <= maxBytes || Math.min(width, height) * scale < MIN_SIDE) return blob;
  }
}

async function drawScaled(image, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width: Math.max(1, width), height: Math.max(1, height) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  // WebP keeps transparency; a browser that cannot write it writes PNG.
  return new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.95));
}
