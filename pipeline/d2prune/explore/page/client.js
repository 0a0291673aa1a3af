// Requests to the explorer's server.

export async function get(path, parameters = "") {
  const response = await fetch(`${path}?${parameters}`);
  // Refusals of the server itself are no JSON.
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(value.error || response.statusText || `status ${response.status}`);
  return value;
}

// The name of an image in searches of a run, once the server has encoded it.
export async function sendImage(run, file) {
  // A type that no other site's page may send; the server looks at the content.
  const response = await fetch(`/api/image?${new URLSearchParams({ run })}`,
    { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
  const value = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(value.error || response.statusText || `status ${response.status}`);
  return value.image;
}

// Returns `begin`; what `begin` returns is true until it is called again: late answers are dropped.
export function newest() {
  let last = 0;
  return () => {
    const own = ++last;
    return () => own === last;
  };
}

export function imageUrl(run, size, position) {
  return `/image/${size}/${position}?${new URLSearchParams({ run })}`;
}

export function exportUrl(file, parameters) {
  return `/export/${file}?${parameters}`;
}
